"""Comments and notes out of a text, line numbers kept. Pure."""


def without_spans(text: str, opening: str, closing: str) -> str:
    """Return the text without what stands between two marks; one that is never closed stays."""
    kept: list[str] = []
    at = 0
    while (begin := text.find(opening, at)) >= 0:
        end = text.find(closing, begin + len(opening))
        if end < 0:
            break
        end += len(closing)
        kept += [text[at:begin], "\n" * text.count("\n", begin, end)]
        at = end
    return "".join(kept) + text[at:]
