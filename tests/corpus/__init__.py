"""Broken and hostile files, generated, and what has to become of each.

A module makes one kind of file: ``images``, ``lists``, ``adapters``, ``archives``, ``checkpoints``. ``ways`` pushes a
file through what users start, ``worker`` judges it under limits of memory and disk, ``supervisor`` keeps the time.
``scripts/broken_inputs.py`` runs all of them, the tests a part.
"""
