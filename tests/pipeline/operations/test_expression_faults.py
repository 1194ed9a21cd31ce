"""An expression that failed on a result is reported with its file, its line and the value that it failed on."""

from pipeline.operations.expression_faults import expression_faults
from tests.factories.callbacks import boxes
from tests.factories.pipelines import ROOT, Pipeline

FILE = """workflow: w
steps:
  ask:
    after: {type: imageannotation}
    create:
      type: categorization
      params:
        attachment_type: text
        attachment: "${{ task.task_id }}"
        instruction: "Notes: ${{ join('; ', task.metadata.notes) }}"
        categories: [a, b]
"""


def test_a_fault_names_the_file_the_line_and_the_value(pipeline: Pipeline) -> None:
    pipeline.write(FILE)
    pipeline.receive(boxes("car"), metadata={"notes": ["dark", None]})
    with pipeline.service.reader.begin() as connection:
        (fault,) = expression_faults(connection, pipeline.service)
    assert (fault.workflow, fault.step, fault.follow_ups, fault.source_task_id) == ("w", "ask", 1, ROOT)
    assert fault.place == f"{pipeline.folder / 'w.yaml'}:10: steps.ask.create.params.instruction"
    assert "`join('; ', task.metadata.notes)`" in fault.reason
    assert "None" in fault.reason


def test_a_fault_of_a_workflow_that_is_gone_is_reported_by_its_step(pipeline: Pipeline) -> None:
    pipeline.write(FILE)
    pipeline.receive(boxes("car"), metadata={"notes": [None]})
    (pipeline.folder / "w.yaml").unlink()
    with pipeline.service.reader.begin() as connection:
        (fault,) = expression_faults(connection, pipeline.service)
    assert fault.place == "w.ask"
