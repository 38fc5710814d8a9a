import io

from admin.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_there_are_few_whole_lines_and_the_last_state() -> None:
    stream = io.StringIO()
    with Progress("copying", stream=stream, plain_interval_s=3600) as progress:
        for done in range(0, 1025):
            progress(done, 1024)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("copying:   0% of 1.0 KiB")
    assert lines[1].startswith("copying: 100% of 1.0 KiB")
    assert "\r" not in stream.getvalue()


def test_on_a_terminal_one_line_is_rewritten() -> None:
    stream = _Terminal()
    with Progress("copying", stream=stream) as progress:
        progress(512, 1024)
    assert stream.getvalue().startswith("\rcopying:  50% of 1.0 KiB")
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 1


def test_work_that_never_began_prints_nothing() -> None:
    stream = _Terminal()
    with Progress("copying", stream=stream):
        pass
    assert stream.getvalue() == ""


def test_nothing_to_do_is_all_done() -> None:
    stream = io.StringIO()
    with Progress("copying", stream=stream) as progress:
        progress(0, 0)
    assert "100%" in stream.getvalue()
