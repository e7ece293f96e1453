"""What the server answers to an error: a status, and one sentence as `detail`."""

from collections.abc import Callable

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from microtome.browser.live import CannotAnswer, CannotOpen
from microtome.browser.runs import NoSuchRun
from microtome.browser.shelf import BROKEN, broken
from microtome.core.errors import NoSuchComponent, Refusal


def refusing(status: int) -> Callable[[Request, Exception], JSONResponse]:
    """The error's own sentence, under this status."""

    def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status)

    return answer


def refuse_broken(request: Request, error: Exception) -> JSONResponse:
    """A file of a run that was cut off, or is being written."""
    return JSONResponse({"detail": broken(error)}, 409)


def refuse_question(request: Request, error: Exception) -> JSONResponse:
    """A badly formed request, as a sentence instead of pydantic's list."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}" for fault in error.errors()]
    return JSONResponse({"detail": f"The request is not understood. {'; '.join(faults)}."}, 422)


def refuse_http(request: Request, error: Exception) -> JSONResponse:
    """An address that is not served, or may not be."""
    assert isinstance(error, StarletteHTTPException)
    sentence = "There is nothing at this address." if error.detail == "Not Found" else error.detail
    return JSONResponse({"detail": sentence}, error.status_code)


ANSWERS: dict[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    NoSuchRun: refusing(404),
    NoSuchComponent: refusing(404),
    CannotAnswer: refusing(422),
    CannotOpen: refusing(503),
    **dict.fromkeys(BROKEN, refuse_broken),
    Refusal: refusing(409),
    RequestValidationError: refuse_question,
    StarletteHTTPException: refuse_http,
}
