//! `latentd model pull`: says what it will fetch and under what licence, fetches it, and says how to draw with it.

use std::io;
use std::sync::{Arc, Mutex};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::runtime;
use tokio::select;
use tokio::signal::ctrl_c;

use super::{Exit, complain, say, usage};
use crate::app::checks::{Verdict, weights};
use crate::app::cli::PullArgs;
use crate::clock::{SystemClock, WallClock};
use crate::config::Config;
use crate::models::size;
use crate::models::{Hub, Order, PullError, PullPlan, Seen, Watch, plan, pull};
use crate::net::{DownloadClient, NoClient};

/// Why nothing was pulled.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error(transparent)]
    Client(#[from] NoClient),
    #[error("the token of the hub cannot be read: {0}; mend the file, or set HF_TOKEN")]
    Token(io::Error),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error("what came is no model, and was removed: {0}")]
    Weights(String),
}

/// Pulls what `args` name.
pub(super) fn execute(args: PullArgs, config: &Config) -> Exit {
    // A thread for each file, which is written where it is received, and one for the rest.
    let threads = usize::from(args.jobs) + 1;
    let runtime = match runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            complain(&format!("no runtime: {cause}"));
            return Exit::Bug;
        }
    };
    let exit = runtime.block_on(async {
        select! {
            biased;
            Ok(()) = ctrl_c() => {
                complain(&"interrupted; what came is kept, and the same command goes on from there");
                Exit::Interrupted
            }
            ended = carry_out(args, config) => match ended {
                Ok(()) => Exit::Done,
                Err(Failure::Pull(fault @ (PullError::What(_) | PullError::Flag(_) | PullError::Name(_)))) => usage(&fault),
                Err(failure) => {
                    complain(&failure);
                    Exit::Failed
                }
            },
        }
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    exit
}

async fn carry_out(args: PullArgs, config: &Config) -> Result<(), Failure> {
    let endpoint = config.hub.endpoint.clone();
    let token = config.hub.token().map_err(Failure::Token)?;
    let key = token.as_ref().map(|token| (&endpoint, token.reveal()));
    let hub = Hub::new(endpoint.clone(), DownloadClient::through(key, &config.net.proxies)?);
    let PullArgs { what, revision, variant, vae, name, jobs, sha256 } = args;
    let plan = plan(&hub, Order { what, revision, variant, vae, name, sha256 }).await?;
    let place = config.models_dir.join(&plan.name);
    if plan.is_done(&place) {
        // So that a container's start may pull without asking first.
        say(&format!("{} is in {} already, pulled from the same place", plan.name, place.display()))?;
        return Ok(());
    }
    say(&outline(&plan))?;
    let bars = Arc::new(Bars::new(&plan));
    let watch: Watch = {
        let bars = Arc::clone(&bars);
        Arc::new(move |number, seen| bars.show(number, seen))
    };
    let pulled = pull(&hub, &plan, &config.models_dir, jobs.into(), SystemClock.now(), &watch).await;
    bars.clear();
    let staged = pulled?;
    let check = weights::check(staged.folder());
    if check.verdict == Verdict::Fail {
        let found = check.found.replace(&format!("{}/", staged.folder().display()), "");
        staged.discard()?;
        return Err(Failure::Weights(found));
    }
    let place = staged.settle()?;
    say(&format!("{} is in {}", plan.name, place.display()))?;
    say(&format!("draw with it: latentd run \"a lighthouse at dusk\" --model {}", plan.name))?;
    Ok(())
}

/// What will be fetched, and on whose terms.
fn outline(plan: &PullPlan) -> String {
    let about = &plan.about;
    let source = match (&about.repository, &about.revision, &about.url) {
        (Some(repository), Some(revision), _) => format!("{repository} at {revision}"),
        (.., Some(url)) => url.clone(),
        _ => "a file".to_owned(),
    };
    let unstated = || "not stated; see where it comes from before you use it".to_owned();
    let licence = match (&about.licence, &about.licence_url) {
        (Some(licence), Some(url)) => format!("{licence} ({url})"),
        (Some(licence), None) => licence.clone(),
        _ => unstated(),
    };
    let vae = about.vae.as_ref().map(|vae| {
        let licence = vae.licence.clone().unwrap_or_else(unstated);
        format!("autoencoder: {} at {}\nits licence: {licence}\n", vae.repository, vae.revision)
    });
    let hashes = plan.items.iter().filter(|item| item.sha256.is_some()).count();
    let title = about.title.as_ref().map(|title| format!("{title}: ")).unwrap_or_default();
    format!(
        "{title}{source}\nlicence: {licence}\n{}{} files, {}, hashes published of {hashes}",
        vae.unwrap_or_default(),
        plan.items.len(),
        size(plan.bytes())
    )
}

/// A bar for each file where a person watches; elsewhere a line for each that is done, or was begun again.
struct Bars {
    all: MultiProgress,
    files: Vec<(String, ProgressBar)>,
    /// Those that are shown: a file that waits has no bar yet.
    shown: Mutex<Vec<bool>>,
}

impl Bars {
    fn new(plan: &PullPlan) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let files: Vec<_> = plan.items.iter().map(|item| (item.path.to_string(), ProgressBar::hidden())).collect();
        let shown = Mutex::new(vec![false; files.len()]);
        Self { all, files, shown }
    }

    fn show(&self, number: usize, seen: Seen) {
        let Some((name, bar)) = self.files.get(number) else { return };
        let told = match seen {
            Seen::At(bytes, total) => {
                self.appear(number, name, bar);
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(bytes);
                return;
            }
            Seen::Again(cause) => format!("{name}: {cause}; trying again"),
            Seen::Done => {
                bar.finish_and_clear();
                format!("{name}: done")
            }
        };
        if self.all.is_hidden() {
            complain(&told);
        } else {
            // Beside the bars; a terminal that takes no line shows bars alone.
            let _ = self.all.println(told);
        }
    }

    fn appear(&self, number: usize, name: &str, bar: &ProgressBar) {
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !std::mem::replace(&mut shown[number], true) {
            let template = "{msg}  {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.set_message(name.to_owned());
            self.all.add(bar.clone());
        }
    }

    fn clear(&self) {
        // Nothing is drawn after this, whether or not it could be cleared.
        let _ = self.all.clear();
    }
}
