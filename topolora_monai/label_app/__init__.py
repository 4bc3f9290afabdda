"""The MONAI Label app: annotate with adapted networks, correct, submit, retrain.

Nearly everything here needs MONAI Label, which lives in an environment of its own (``make label``).
"""
