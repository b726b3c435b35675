//! How many kernels an evaluation of SD 1.5 is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::full_size::SD15;
use crate::gpu::draw;
use crate::log::Counts;

const GOLDEN: &str = "tests/golden/kernels/sd-1.5.txt";
const HEADER: &str = "# What a GPU of compute capability 9.0 is given for one evaluation of SD 1.5 in f16, 512x512, one guided image: two rows.
# A call of a library is a kernel or several, which nobody here can count.
# UPDATE_GOLDEN=1 cargo test --release --test imaginary_gpu writes it again.
";

/// The golden file of `counts`.
fn page(counts: &Counts) -> String {
    let mut page = HEADER.to_owned();
    writeln!(page, "{}\tin all", counts.values().sum::<u64>()).unwrap();
    for (what, count) in counts {
        writeln!(page, "{count}\t{what}").unwrap();
    }
    page
}

/// Lines of one page that the other lacks, each with its sign.
fn differences(written: &str, found: &str) -> String {
    let mut lines: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    written.lines().for_each(|line| lines.entry(line).or_default().0 = true);
    found.lines().for_each(|line| lines.entry(line).or_default().1 = true);
    let told = lines.iter().filter(|(_, (before, now))| before != now);
    told.map(|(line, (before, _))| [if *before { "- " } else { "+ " }, line].concat()).collect::<Vec<_>>().join("\n")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test is told by a variable to write")]
fn an_evaluation_of_sd_1_5_is_so_many_kernels() {
    let folder = tempfile::tempdir().unwrap();
    SD15.write(folder.path());
    let model = folder.path().to_str().unwrap();
    let run = draw(&[], &["--model", model, "--dtype", "f16", "--set", "num_inference_steps=6"]);
    run.assert_drew(1);
    assert!(
        run.stderr.contains("an evaluation is recorded, and replayed from now on height=64 width=64 networks=0 rows=2")
    );

    let found = page(&run.log.capture(1).unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &found).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == written,
        "{GOLDEN} has other kernels; UPDATE_GOLDEN=1 writes it again if they are meant:\n{}",
        differences(&written, &found)
    );
}
