//! What batching step by step is for: how long jobs wait under load, against one job at a time and against batches of whole jobs.
//!
//! Time here is that of a simulation: an evaluation takes what a table says, and jobs come as a Poisson process. The policy is the engine's own,
//! `batch::choose`. `cargo test --release --test integration waits:: -- --nocapture` prints the table that docs/performance.md has.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::float_cmp)]

use latentd::batch::{Key, Waiting, choose};

/// Rows of an evaluation at 64×64 at most, as the engine has it.
const MOST_ROWS: usize = 16;

/// Seconds of an evaluation, whatever its size, and of each row of 64×64 latents: a GPU that small batches do not fill.
const EVALUATION: f64 = 0.008;
const ROW: f64 = 0.002;

/// Jobs of one run.
const JOBS: usize = 4000;

const USUAL: Key = Key { height: 64, width: 64, tokens: 77, networks: 0 };
const LARGE: Key = Key { height: 96, width: 96, tokens: 77, networks: 0 };

/// A job of one image.
#[derive(Debug, Clone, Copy)]
struct Job {
    came: f64,
    key: Key,
    rows: usize,
    steps: u32,
}

fn area(key: Key) -> f64 {
    f64::from(key.height * key.width) / f64::from(USUAL.height * USUAL.width)
}

fn most(key: Key) -> usize {
    (MOST_ROWS as f64 / area(key)) as usize
}

fn seconds(key: Key, rows: usize) -> f64 {
    EVALUATION + ROW * area(key) * rows as f64
}

/// Numbers that look random and are the same in every run (`SplitMix64`, Steele et al. 2014).
struct Chance(u64);

impl Chance {
    /// From 0 to 1, both excluded.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11).max(1) as f64 / (1u64 << 53) as f64
    }

    fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[(self.next() * N as f64) as usize]
    }
}

/// Mostly 512×512, mostly guided, of all lengths; they come so fast that one job at a time is busy for `load` of the time.
fn jobs(load: f64) -> Vec<Job> {
    let mut chance = Chance(7);
    let draw = |chance: &mut Chance| Job {
        came: 0.0,
        key: chance.one_of([USUAL, USUAL, USUAL, LARGE]),
        rows: chance.one_of([2, 2, 2, 2, 1]),
        steps: chance.one_of([15, 20, 25, 30, 50]),
    };
    let mut jobs: Vec<Job> = (0..JOBS).map(|_| draw(&mut chance)).collect();
    let work: f64 = jobs.iter().map(|job| f64::from(job.steps) * seconds(job.key, job.rows)).sum();
    let pause = work / JOBS as f64 / load;
    let mut now = 0.0;
    for job in &mut jobs {
        now -= pause * chance.next().ln();
        job.came = now;
    }
    jobs
}

/// From a job's arrival to its last evaluation, in the order of arrival: jobs are evaluated together as the engine does it, and come and go
/// between evaluations.
fn step_by_step(jobs: &[Job]) -> Vec<f64> {
    struct Lane {
        number: usize,
        left: u32,
        served: u64,
    }
    let (mut lanes, mut took): (Vec<Lane>, _) = (Vec::new(), vec![0.0; jobs.len()]);
    let (mut now, mut next, mut evaluations) = (0.0, 0, 0);
    while next < jobs.len() || !lanes.is_empty() {
        if lanes.is_empty() {
            now = f64::max(now, jobs[next].came);
        }
        while next < jobs.len() && jobs[next].came <= now {
            lanes.push(Lane { number: next, left: jobs[next].steps, served: 0 });
            next += 1;
        }
        let waiting =
            |lane: &Lane| Waiting { key: jobs[lane.number].key, rows: jobs[lane.number].rows, served: lane.served };
        let chosen = choose(&lanes.iter().map(waiting).collect::<Vec<_>>(), most);
        evaluations += 1;
        let rows = chosen.iter().map(|&i| jobs[lanes[i].number].rows).sum();
        now += seconds(jobs[lanes[chosen[0]].number].key, rows);
        for &i in &chosen {
            lanes[i].left -= 1;
            lanes[i].served = evaluations;
            if lanes[i].left == 0 {
                took[lanes[i].number] = now - jobs[lanes[i].number].came;
            }
        }
        lanes.retain(|lane| lane.left > 0);
    }
    took
}

/// The same where a batch is made of jobs that wait and are alike (size, steps, guidance), up to `together`, and then runs to its end.
fn whole_jobs(jobs: &[Job], together: usize) -> Vec<f64> {
    let (mut line, mut took): (Vec<usize>, _) = (Vec::new(), vec![0.0; jobs.len()]);
    let (mut now, mut next) = (0.0, 0);
    while next < jobs.len() || !line.is_empty() {
        if line.is_empty() {
            now = f64::max(now, jobs[next].came);
        }
        while next < jobs.len() && jobs[next].came <= now {
            line.push(next);
            next += 1;
        }
        let first = jobs[line[0]];
        let alike = |number: &usize| {
            let job = jobs[*number];
            (job.key, job.steps, job.rows) == (first.key, first.steps, first.rows)
        };
        let most = (most(first.key) / first.rows).clamp(1, together);
        let batch: Vec<usize> = line.iter().copied().filter(alike).take(most).collect();
        now += f64::from(first.steps) * seconds(first.key, first.rows * batch.len());
        for &number in &batch {
            took[number] = now - jobs[number].came;
        }
        line.retain(|number| !batch.contains(number));
    }
    took
}

fn percentile(took: &[f64], share: f64) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

#[test]
fn jobs_wait_least_when_they_are_evaluated_together_step_by_step() {
    println!("| load of one job at a time | | p50, s | p95, s |\n|---|---|---|---|");
    for load in [0.5, 0.8, 0.95] {
        let jobs = jobs(load);
        let policies = [
            ("one job at a time", whole_jobs(&jobs, 1)),
            ("batches of whole jobs", whole_jobs(&jobs, usize::MAX)),
            ("step by step", step_by_step(&jobs)),
        ];
        let table = policies.map(|(name, took)| {
            assert!(took.iter().all(|time| *time > 0.0), "{name} forgets jobs");
            let (p50, p95) = (percentile(&took, 0.5), percentile(&took, 0.95));
            println!("| {:.0} % | {name} | {p50:.2} | {p95:.2} |", 100.0 * load);
            (p50, p95)
        });
        let [alone, whole, ours] = table;
        for other in [alone, whole] {
            assert!(ours.0 < other.0 && ours.1 < other.1, "at {load}");
        }
        // At half load there is seldom somebody to share with; near the limit always.
        let share = if load < 0.6 { 0.9 } else { 0.55 };
        assert!(ours.1 < share * alone.1, "at {load}");
    }
}

/// None starves: under half as much again as one at a time can bear, the large size, which one in four jobs has, gets its turns.
#[test]
fn sizes_take_turns() {
    let jobs = jobs(1.5);
    let took = step_by_step(&jobs);
    let slowness = |key: Key| {
        let of: Vec<f64> = jobs
            .iter()
            .zip(&took)
            .filter(|(job, _)| job.key == key)
            .map(|(job, took)| took / (f64::from(job.steps) * seconds(job.key, job.rows)))
            .collect();
        percentile(&of, 0.95)
    };
    let (usual, large) = (slowness(USUAL), slowness(LARGE));
    assert!(usual < 10.0 && large < 10.0, "times as long as alone: {usual:.1} and {large:.1}");
}
