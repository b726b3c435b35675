//! Tells the linker where libtorch lies, so that the binary runs from any folder without `LD_LIBRARY_PATH`.
#![expect(clippy::disallowed_methods, reason = "cargo talks to a build script through the environment")]

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // torch-sys declares `links = "tch"`, hence this name.
    let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // An installed binary finds libtorch beside itself (bin/ next to lib/), a built one where it was built against.
    for path in ["$ORIGIN/../lib/torch/lib", &lib] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
    // torch_cuda must not become a load-time dependency: a machine without a GPU may not have its libraries.
    println!("cargo:rustc-link-arg=-Wl,--as-needed");
}
