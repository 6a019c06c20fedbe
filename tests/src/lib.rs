//! What tests of whole sagas share: a shop that runs, and a pen that writes records as another service's relay would.

mod pen;
mod shop;

pub use pen::Pen;
pub use shop::{LIMIT, Shop, eventually};
