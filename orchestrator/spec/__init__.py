"""A study file, read and checked, and the cells that it asks for: the only place that sees YAML.

`load.load_spec` gives a `model.StudySpec`, `cells.cells` its cells.
"""
