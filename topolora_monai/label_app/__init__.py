"""The MONAI Label app: annotate with adapted networks, correct, submit, retrain.

Everything here but :mod:`~topolora_monai.label_app.names` and :mod:`~topolora_monai.label_app.files` needs MONAI
Label, which lives in an environment of its own (``make label``).
"""
