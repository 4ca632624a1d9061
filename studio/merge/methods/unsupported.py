"""mergekit's methods that are not here, and why."""

_ELEMENTS = (
    "it decides about single elements, so its result is no mix of whole tensors (make it with "
    "mergekit; its folder can be served and compared here)"
)

UNSUPPORTED = {
    **dict.fromkeys(
        ("ties", "dare_ties", "dare_linear", "della", "della_linear", "breadcrumbs",
         "breadcrumbs_ties", "sce", "nearswap", "arcee_fusion", "ram", "ramplus_tl"),
        _ELEMENTS,
    ),
    "nuslerp": "row by row it is no mix of whole tensors; slerp is the flattened one of two",
    "multislerp": "karcher is the spherical mean of several models",
    "passthrough": "it stacks or copies layers; it merges nothing",
}  # fmt: skip
