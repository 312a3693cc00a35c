"""One file per object of every format version ever released, its values in a JSON beside it. They never change."""
