//! The inventory service: publishes `inventory`, reacts to `payments` and `orders`.

fn main() -> std::process::ExitCode {
    reel::runtime::main::<inventory::App>()
}
