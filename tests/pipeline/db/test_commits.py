"""Commits of other connections are noticed on SQLite."""

from pathlib import Path

from sqlalchemy import create_engine, text

from pipeline.db.commits import CommitCounter


def test_the_count_changes_with_each_commit_of_another_connection_alone(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    commits = CommitCounter(engine, enabled=True)
    seen = [commits.count()]
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE numbers (n)"))
        connection.commit()
        seen.append(commits.count())
        connection.execute(text("INSERT INTO numbers VALUES (1)"))
        assert commits.count() == seen[-1]
        connection.rollback()
        assert commits.count() == seen[-1]
        connection.execute(text("INSERT INTO numbers VALUES (1)"))
        connection.commit()
        seen.append(commits.count())
    assert None not in seen
    assert len(set(seen)) == 3
    engine.dispose()


def test_a_database_that_cannot_be_opened_has_no_count(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'missing' / 'a.db'}")
    assert CommitCounter(engine, enabled=True).count() is None
    assert CommitCounter(engine, enabled=False).count() is None
