"""What Label Studio imports: tasks with pre-annotations, and the labeling interface."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from dynal_fast.data.catalogue import LOCAL_FILES, Catalogue
from dynal_fast.experiment.runs import Request


def tasks_json(
    catalogue: Catalogue, classes: Sequence[str], request: Request, samples: Sequence[int]
) -> bytes:
    """Return the tasks of ``samples`` as Label Studio imports them, in UTF-8.

    Images are served by Label Studio itself, from the parent of the data's folder as its document
    root. What the model predicts is there before anybody labels; a task keeps the name of its
    sample, by which an export is read again.
    """
    asked = {sample: rank for rank, sample in enumerate(request.ids)}
    tasks = [_task(catalogue, classes, request, sample, asked.get(sample)) for sample in samples]
    return (json.dumps(tasks, ensure_ascii=False, indent=1) + "\n").encode()


def _task(
    catalogue: Catalogue,
    classes: Sequence[str],
    request: Request,
    sample: int,
    rank: int | None,
) -> dict[str, Any]:
    name = catalogue.names[sample]
    data: dict[str, Any] = {catalogue.column: name}
    if catalogue.texts:
        data["text"] = catalogue.texts[sample]
    else:
        data["image"] = f"{LOCAL_FILES}?d={quote(served_path(catalogue.root, name))}"
    if rank is None:
        return {"data": data}
    data["rank"] = rank + 1
    if request.scores:
        data["score"] = request.scores[rank]
    if not request.predicted:
        return {"data": data}
    kind = "text" if catalogue.texts else "image"
    choice = {"choices": [classes[request.predicted[rank]]]}
    result = {"from_name": "label", "to_name": kind, "type": "choices", "value": choice}
    prediction = {
        "model_version": f"cycle {request.cycle - 1}",
        "score": request.probabilities[rank],
        "result": [result],
    }
    return {"data": data, "predictions": [prediction]}


def served_path(root: Path, name: str) -> str:
    """Return the path of a file below the document root, which is the parent of ``root``.

    >>> served_path(Path("/data/photos"), "unlabeled/x.png")
    'photos/unlabeled/x.png'
    """
    return f"{root.resolve().name}/{name}"


def interface_xml(catalogue: Catalogue, classes: Sequence[str]) -> bytes:
    """Return the labeling interface: the sample, and one choice among the classes."""
    kind, tag = ("text", "Text") if catalogue.texts else ("image", "Image")
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in classes)
    return (
        f'<View>\n  <{tag} name="{kind}" value="${kind}"/>\n'
        f'  <Choices name="label" toName="{kind}" choice="single" showInLine="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    ).encode()
