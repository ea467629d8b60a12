"""The portal worker: accepts slow work, does it, and says how it goes (docs/operations.md, "Tasks").

`kinds.py`, `line.py` and `engine.py` do tasks of whatever kind; each kind is one file, which declares its
input, its limits and what is done. The requests' handlers are in `submitting.py`, `uploading.py` and
`reading.py`.
"""
