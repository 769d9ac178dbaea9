"""A command ends with one line and a status, whatever its main function raises."""

import pytest

from data_prep.processes.command_line import INTERRUPTED, user_errors_in_one_line

ENDINGS = [
    (ValueError("--x 3 must be at least 4"), 2, "error: --x 3 must be at least 4"),
    (
        FileNotFoundError(2, "No such file or directory", "text"),
        2,
        "error: [Errno 2] No such file or directory: 'text'",
    ),
    (MemoryError(), 2, "error: out of memory; use fewer --workers"),
    (KeyboardInterrupt(), INTERRUPTED, "interrupted: start the same command again to go on"),
]


@pytest.mark.parametrize("error, status, line", ENDINGS)
def test_an_error_is_one_line_and_a_status(error, status, line, capsys):
    @user_errors_in_one_line
    def main(argv=None):
        raise error

    assert main([]) == status
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("returned, status", [(None, 0), (0, 0), (1, 1)])
def test_a_status_is_passed_on(returned, status):
    assert user_errors_in_one_line(lambda argv: returned)([]) == status


def test_an_error_of_the_program_itself_keeps_its_traceback():
    with pytest.raises(KeyError):
        user_errors_in_one_line(lambda argv: {}["missing"])([])
