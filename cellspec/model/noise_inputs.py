"""The inputs of a regularised cell that hold masks for a state: how they are called. Loads nothing, for the layers' sake."""

ZONEOUT_SUFFIX = "_zoneout"
DROPOUT_SUFFIX = "_dropout"
