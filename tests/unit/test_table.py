from admin.table import render


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_trailing_blanks() -> None:
    text = render(("NAME", "BYTES", "STATE"), [("a", 5, "SERVING"), ("longer", 12345678, "")], right=("BYTES",))
    assert text.splitlines() == [
        "NAME       BYTES  STATE",
        "a              5  SERVING",
        "longer  12345678",
    ]


def test_no_row_leaves_the_header() -> None:
    assert render(("A", "B"), []) == "A  B"
