"""Reads an export with a tool that knows nothing of this project, and prints what it found as one line of JSON.

Runs in the environment of that tool: `python read_back.py TOOL PATH …`. Coordinates are pixels unless a function says else.
"""

import json
import sys
from pathlib import Path


def pycocotools(path):
    import io
    from contextlib import redirect_stdout

    from pycocotools.coco import COCO

    with redirect_stdout(io.StringIO()):
        coco = COCO(path)
    shapes = {}
    for annotation in coco.loadAnns(coco.getAnnIds()):
        pixels = int(coco.annToMask(annotation).sum()) if annotation["segmentation"] else None
        shapes[annotation.get("uuid") or str(annotation["id"])] = {
            "bbox": annotation["bbox"],
            "category": coco.loadCats(annotation["category_id"])[0]["name"],
            "image": coco.loadImgs(annotation["image_id"])[0]["file_name"],
            "pixels": pixels,
        }
    return {
        "images": sorted(image["file_name"] for image in coco.loadImgs(coco.getImgIds())),
        "shapes": shapes,
    }


def supervision_coco(images, annotations):
    import supervision

    return _supervision(supervision.DetectionDataset.from_coco(images, annotations))


def supervision_yolo(folder, split, is_obb):
    import supervision

    dataset = supervision.DetectionDataset.from_yolo(
        f"{folder}/images/{split}", f"{folder}/labels/{split}", f"{folder}/data.yaml", is_obb=is_obb == "obb"
    )
    return _supervision(dataset)


def _supervision(dataset):
    found = {}
    for path, _, detections in dataset:
        corners = detections.data.get("xyxyxyxy")
        found[Path(path).name] = [
            {
                "xyxy": [float(number) for number in detections.xyxy[position]],
                "class": dataset.classes[int(detections.class_id[position])],
                "pixels": None if detections.mask is None else int(detections.mask[position].sum()),
                "corners": None if corners is None else corners[position].tolist(),
            }
            for position in range(len(detections))
        ]
    return {"classes": dataset.classes, "images": found}


def load_dataset(folder):
    from datasets import load_dataset

    found = {}
    for split, rows in load_dataset(folder).items():
        category = rows.features["objects"].feature["category"]
        found[split] = [
            {
                **{name: value for name, value in row.items() if name not in ("image", "frames")},
                "image": None if row["image"] is None else getattr(row["image"], "size", row["image"]),
                "categories": [
                    None if shape["category"] is None else category.int2str(shape["category"])
                    for shape in row["objects"]
                ],
            }
            for row in rows
        ]
    return found


def webdataset(path):
    import webdataset

    found = []
    for sample in webdataset.WebDataset(f"file:{path}", shardshuffle=False):
        images = [len(value) for key, value in sample.items() if key in ("jpg", "png")]
        found.append({"key": sample["__key__"], "json": json.loads(sample["json"]), "bytes": images})
    return found


def mlcroissant(path):
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=path)
    issues = dataset.metadata.ctx.issues
    records = {}
    for record_set in dataset.metadata.record_sets:
        records[record_set.id] = sum(1 for _ in dataset.records(record_set.id))
    return {"errors": sorted(issues.errors), "records": records}


def pandas_parquet(path):
    import pandas

    return json.loads(pandas.read_parquet(path).to_json(orient="records"))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
