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


def datumaro(format_name, path):
    import datumaro

    dataset = datumaro.Dataset.import_from(path, format_name)
    labels = [label.name for label in dataset.categories()[datumaro.AnnotationType.label].items]
    return [
        {
            "id": item.id,
            "subset": item.subset,
            "shapes": [
                {
                    "kind": type(shape).__name__,
                    "label": None if shape.label is None else labels[shape.label],
                    "points": [float(number) for number in getattr(shape, "points", None) or ()],
                    "pixels": int(shape.image.sum()) if type(shape).__name__ == "Mask" else None,
                    "attributes": {name: str(value) for name, value in shape.attributes.items()},
                }
                for shape in item.annotations
            ],
        }
        for item in dataset
    ]


def supervision_voc(folder):
    import supervision

    return _supervision(
        supervision.DetectionDataset.from_pascal_voc(f"{folder}/JPEGImages", f"{folder}/Annotations")
    )


def spacy(path):
    import spacy as library
    from spacy.tokens import DocBin

    documents = DocBin().from_disk(path).get_docs(library.blank("xx").vocab)
    return [
        {
            "text": document.text,
            "entities": [[one.start_char, one.end_char, one.label_] for one in document.ents],
        }
        for document in documents
    ]


def labelstudio(folder):
    from label_studio_sdk.converter import brush
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((Path(folder) / "config.xml").read_text())
    tasks = json.loads((Path(folder) / "tasks.json").read_text())
    regions = [region for task in tasks for made in task["annotations"] for region in made["result"]]
    return {
        "valid": [interface.validate_annotation(made) for task in tasks for made in task["annotations"]],
        "regions": [interface.validate_region(region) for region in regions],
        "pixels": {
            region["value"]["brushlabels"][0]: int((brush.decode_rle(region["value"]["rle"])[3::4] > 0).sum())
            for region in regions
            if region["type"] == "brushlabels"
        },
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
