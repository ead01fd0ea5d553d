from typing import final

ALLOWED_PLUGINS: dict[int, str]

@final
class Library:
    path: str
    def __init__(self, path: str, *, loaded: bool = True) -> None: ...

def has_plugin(filter_id: int) -> bool: ...
