"""Runtime. In: the path of a pickle of plain data, such as an info file. Out: its content, or an error for the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from projects.common.safe_pickle import DamagedFileError, UnsafeFileError, load_pickle

from .errors import UserError


def load_plain_pickle(path: Path) -> Any:
    """Loads a pickle that holds only Python's own containers, numbers and strings, and numpy arrays and scalars.

    Raises:
        UserError: naming the file, where it cannot be read, is damaged, or would create anything else (a pickle may
            run any code it likes; this one may not).
    """
    try:
        return load_pickle(path)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror})') from error
    except UnsafeFileError as error:
        raise UserError(str(error)) from error
    except DamagedFileError as error:
        raise UserError(f'{error}: copy it again') from error
