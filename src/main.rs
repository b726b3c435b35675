//! The `latentd` binary: everything is in the library, so that tests can reach it.

fn main() {
    latentd::app::main().end()
}
