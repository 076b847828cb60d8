//! The dates of answers. hyper writes one into each that has none, by the system's clock; how long an answer is, compressed, would
//! depend on the time of the run.

use sterna_runtime::simulation;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Response, header::DATE};
use tower::layer::util::{Identity, Stack};
use tower::util::MapResponseLayer;

/// What stands around all services of a server.
pub(crate) type Around = Stack<Dates, Identity>;

/// Gives the answers of a simulation their date.
pub(crate) type Dates = MapResponseLayer<fn(Response<Body>) -> Response<Body>>;

/// In a simulation, all answers are of one day.
pub(crate) fn dates() -> Dates {
    MapResponseLayer::new(|mut answer| {
        if simulation::installed().is_some() {
            answer.headers_mut().insert(DATE, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
        }
        answer
    })
}
