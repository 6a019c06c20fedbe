//! The payment service: publishes `payments`, reacts to `orders` and `inventory`.

fn main() -> std::process::ExitCode {
    reel::runtime::main::<payment::App>()
}
