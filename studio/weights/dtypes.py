"""Number types by their safetensors names: "BF16" is torch.bfloat16, two bytes an element."""

_TYPES = {
    "BOOL": (1, "bool"),
    "U8": (1, "uint8"),
    "I8": (1, "int8"),
    "F8_E4M3": (1, "float8_e4m3fn"),
    "F8_E4M3FNUZ": (1, "float8_e4m3fnuz"),
    "F8_E5M2": (1, "float8_e5m2"),
    "F8_E5M2FNUZ": (1, "float8_e5m2fnuz"),
    "U16": (2, "uint16"),
    "I16": (2, "int16"),
    "F16": (2, "float16"),
    "BF16": (2, "bfloat16"),
    "U32": (4, "uint32"),
    "I32": (4, "int32"),
    "F32": (4, "float32"),
    "U64": (8, "uint64"),
    "I64": (8, "int64"),
    "F64": (8, "float64"),
    "C64": (8, "complex64"),
}

ITEMSIZE = {name: itemsize for name, (itemsize, _) in _TYPES.items()}
"""Bytes an element, of every type that a file of weights may hold."""

TORCH_NAMES = {name: torch_name for name, (_, torch_name) in _TYPES.items()}
"""The same types as torch and recipes write them: "BF16" is "bfloat16"."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""The types that can be merged."""
