"""Datasets out: one file a format in exports/formats/, registered in `exports.formats.FORMATS`.

    weighbridge export FORMAT OUT  →  exports.engine.write_export
        pipeline/datasets/         the members of the version, read in pages
        exports/image_index.py          which images the tasks show, their names and sizes
        exports/formats/<name>.py  writes files
        exports/output.py          moves them to OUT, export.json last

A format is a `Format` (exports/format.py): its name, what it holds, and one function that takes an `Export`.
The whole of a small one:

    def write(export: Export) -> None:
        with export.open("points.txt") as file:
            for image in export.images():
                for task, annotation in image.annotations:
                    x, y = annotation.geometry["x"], annotation.geometry["y"]
                    file.write(f"{image.file_name} {x} {y}\\n".encode())
                    export.report.wrote(task, annotation)
                export.report.wrote_image(image)

    POINTS = Format("points", "One line a point", {"point": ""}, write, needs_images=True)

What the engine does for every format, so that none has to:
- Annotations of a type that `holds` does not name, that were kept raw, whose label has no class (with `needs_classes`),
  or that lie on no known image (in `images()`) are left out and counted before the format sees them.
- Tasks come by position, images by the first task that shows them, annotations by file and position: the same order on
  every machine. An image that two tasks share comes once, with the annotations of both.
- Files are hashed, listed in export.json and moved to OUT (a folder, a .zip or an fsspec address).
What a format has to do: report each annotation exactly once, by `wrote` or `leave_out`, and `change` what it changed.
"""
