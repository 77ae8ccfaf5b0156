"""VGGT (Wang et al., 2025): cameras, depth, points and tracks of a set of views, with any encoder inside.

`model.py` is the whole, `config.py` what can be chosen, `checkpoint.py` how weights are read and
written. Names and shapes of the parameters are those of the released weights.
"""
