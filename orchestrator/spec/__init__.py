"""A study file, read and checked: the only place that sees YAML. `load.load_spec` gives a `model.StudySpec`."""
