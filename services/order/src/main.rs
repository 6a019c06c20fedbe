//! The order service: publishes `orders`, reacts to `payments` and `inventory`.

fn main() -> std::process::ExitCode {
    reel::runtime::main::<order::App>()
}
