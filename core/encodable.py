"""Text from outside in a form that can be written down."""


def encodable(text: str) -> str:
    """`text` without lone surrogates, which JSON and the names of files may hold and no file or database takes."""
    return text.encode(errors="replace").decode()
