"""MONAI Label's tasks, thin: the work is done by the rest of the package."""
