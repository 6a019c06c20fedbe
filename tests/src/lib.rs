//! Fixtures of the tests of whole sagas: a running shop, and a pen that writes records as another
//! service's relay would.

mod pen;
mod shop;

pub use pen::Pen;
pub use shop::{LIMIT, Shop, eventually};
