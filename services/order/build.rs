//! The migrations are compiled in: a file added to them makes the service be built again.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations/order");
}
