"""One matrix in every format that the readers take, for the tests of reading and of selecting."""

import json
import struct
from pathlib import Path

import numpy as np
import torch

MATRIX = np.random.default_rng(3).standard_normal((50, 6)).astype(np.float32)
NAMES = [f"e{i}" for i in range(6)]


def csv_text(matrix=MATRIX, names=NAMES, delimiter=",", end="\n"):
    """The shortest decimal numbers that give back each float32."""
    lines = [delimiter.join(names)] if names else []
    lines += [delimiter.join(map(str, row)) for row in matrix]
    return end.join(lines) + end


def safetensors_bytes(tensors, dtypes):
    """A safetensors file, written by hand: no package needed."""
    header, data = {}, b""
    for name, array in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {
            "dtype": dtypes[name],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def arrow_table(kind):
    import pyarrow as arrow

    ids = arrow.array(range(len(MATRIX)))
    flat = arrow.array(MATRIX.ravel())
    if kind == "columns":
        return arrow.table({name: MATRIX[:, i] for i, name in enumerate(NAMES)})
    if kind == "list":
        lists = arrow.array([row.tolist() for row in MATRIX], arrow.list_(arrow.float32()))
    elif kind == "large list":
        lists = arrow.array([row.tolist() for row in MATRIX], arrow.large_list(arrow.float32()))
    elif kind == "tensor":
        storage = arrow.FixedSizeListArray.from_arrays(flat, 6)
        lists = arrow.ExtensionArray.from_storage(
            arrow.fixed_shape_tensor(arrow.float32(), [6]), storage
        )
    else:
        lists = arrow.FixedSizeListArray.from_arrays(flat, 6)
    return arrow.table({"id": ids, "text": ["x"] * len(MATRIX), "embedding": lists})


def write_stream(path, table, rows=9):
    import pyarrow as arrow

    with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def write_dataset(folder, table, parts=2):
    """A folder as Hugging Face's save_to_disk writes it."""
    folder.mkdir(parents=True)
    ends = np.linspace(0, len(table), parts + 1).astype(int)
    names = [f"data-{i:05d}-of-{parts:05d}.arrow" for i in range(parts)]
    for name, begin, end in zip(names, ends[:-1], ends[1:], strict=True):
        write_stream(folder / name, table.slice(begin, end - begin))
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def write_all(folder: Path) -> dict[str, Path]:
    """Write every format into ``folder``; return the files by what they are."""
    import gzip

    import pyarrow.feather as feather
    import pyarrow.parquet as parquet

    files = {}

    def place(name):
        files[name] = folder / name
        return files[name]

    np.save(place("a.npy"), MATRIX)
    np.save(place("big-endian.npy"), MATRIX.astype(">f4"))
    np.savez(place("a.npz"), MATRIX)
    np.savez_compressed(place("compressed.npz"), x=MATRIX)
    torch.save(torch.from_numpy(MATRIX), place("a.pt"))
    torch.save({"x": torch.from_numpy(MATRIX), "note": "hi"}, place("dictionary.pth"))
    torch.save(torch.from_numpy(MATRIX).requires_grad_(), place("grad.pt"))
    tensor = torch.from_numpy(MATRIX)
    torch.save(tensor, place("before-1.6.pt"), _use_new_zipfile_serialization=False)
    place("a.safetensors").write_bytes(safetensors_bytes({"x": MATRIX}, {"x": "F32"}))
    place("a.csv").write_text(csv_text())
    place("no-header.csv").write_text(csv_text(names=None))
    place("windows.csv").write_bytes(b"\xef\xbb\xbf" + csv_text(end="\r\n").encode())
    place("semicolon.csv").write_text(csv_text(delimiter=";"))
    place("a.tsv").write_text(csv_text(delimiter="\t"))
    place("numbered.csv").write_text(csv_text(names=[str(i) for i in range(6)]))
    rows = csv_text(names=None).splitlines()
    place("indexed.csv").write_text(
        ",0,1,2,3,4,5\n" + "".join(f"{i},{row}\n" for i, row in enumerate(rows))
    )
    place("quoted.csv").write_text(
        "path,"
        + ",".join(NAMES)
        + "\n"
        # A quoted field may hold delimiters, quotes and ends of lines.
        + "".join(f'"a, ""{i}""\n.png",{row}\n' for i, row in enumerate(rows))
    )
    place("lists.csv").write_text(
        "text,embedding\n" + "".join(f'x,"[{row.replace(",", ", ")}]"\n' for row in rows)
    )
    np.savetxt(place("savetxt.txt"), MATRIX)
    np.savetxt(place("savetxt.csv"), MATRIX, delimiter=",", header="a comment")
    place("a.csv.gz").write_bytes(gzip.compress(csv_text().encode()))
    parquet.write_table(arrow_table("columns"), place("columns.parquet"))
    for kind in ("list", "large list", "fixed", "tensor"):
        parquet.write_table(arrow_table(kind), place(f"{kind}.parquet"), row_group_size=7)
    feather.write_feather(arrow_table("list"), place("a.feather"))
    feather.write_feather(arrow_table("fixed"), place("plain.arrow"), compression="uncompressed")
    write_stream(place("stream.arrow"), arrow_table("fixed"))
    write_dataset(place("dataset"), arrow_table("list"))
    place("parts").mkdir()
    for name, part in (("a", MATRIX[:20]), ("b", MATRIX[20:])):
        np.save(folder / "parts" / f"{name}.npy", part)
    return files
