from typing import NamedTuple
class Document(NamedTuple):
    name: str
    text: str
