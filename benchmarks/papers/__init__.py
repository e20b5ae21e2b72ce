"""Published findings, measured again with the rules and estimators of this library: one module for each paper.

A module of this folder is found by its name, ``<first author>_<year>.py``, and has

- ``TITLE``, ``REFERENCE`` (authors, year, title) and ``CLAIM`` (what the paper says), texts in Markdown;
- ``FULL`` and ``FAST``, how much is measured: dataclasses, or dicts, of numbers, texts and tuples of them;
- ``measure(size) -> dict``, the figures: numbers, texts, lists and dicts of them, keys being texts;
- ``draw(figures, path)``, one PNG;
- ``verdict(figures) -> str``, made by `verdicts` of what the figures show: it can be that a finding is not found.

`draw` and `verdict` see the figures as JSON gives them back. A module whose name begins with an underscore is none.
"""
