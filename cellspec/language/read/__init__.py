"""Reading: the text of a file into a :class:`~cellspec.language.spec.Spec`."""
