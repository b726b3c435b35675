//! The figures, for people.

use std::fmt::Write;

use super::figures::{Figures, GpuFigures, LatencyFigures, RatesFigures, Spread};

/// Tables in Markdown.
pub(super) fn table(figures: &Figures) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = write(&mut text, figures);
    text.truncate(text.trim_end().len());
    text
}

fn write(text: &mut String, figures: &Figures) -> std::fmt::Result {
    let machine = &figures.machine;
    writeln!(
        text,
        "latentd {}, {}, {}, {} threads\n",
        machine.latentd, machine.model, machine.device, machine.threads
    )?;
    writeln!(
        text,
        "ready {:.2} s after the start of the process; the model took {:.2} s\n",
        figures.start.ready, figures.start.load
    )?;
    writeln!(
        text,
        "| one image | steps | total, s | evaluation, ms | text, ms | decode, ms | PNG and base64, ms | TFLOP/s |\n|---|---|---|---|---|---|---|---|"
    )?;
    for one in &figures.latency {
        writeln!(text, "{}", latency(one, figures.rates.as_ref()))?;
    }
    if let Some(alone) = figures.rows.first() {
        writeln!(text, "\n| side by side | a step of all, ms | images a second, to the first line |\n|---|---|---|")?;
        for rows in &figures.rows {
            let gain = f64::from(rows.images) / rows.step.median / (f64::from(alone.images) / alone.step.median);
            writeln!(text, "| {} of {} | {} | {gain:.2} |", rows.images, rows.size, millis(rows.step))?;
        }
    }
    if let Some(stream) = &figures.stream {
        let (jobs, at_once, seconds) = (stream.jobs.len(), stream.at_once, stream.seconds);
        writeln!(
            text,
            "\n{jobs} jobs of all kinds, {at_once} in hand: {:.1} images a minute ({} in {seconds:.1} s)",
            stream.images_a_minute, stream.images
        )?;
        writeln!(text, "half of them took {:.2} s at most, 95 of 100 {:.2} s", stream.p50, stream.p95)?;
    }
    writeln!(text, "\nresident at most: {} MiB", figures.memory.resident >> 20)?;
    if let Some(taken) = figures.memory.device {
        writeln!(text, "taken of the device: {} MiB", taken >> 20)?;
    }
    if let Some(GpuFigures { evaluations, replayed, graphs, kernels }) = figures.gpu {
        let kernels = if kernels { "in use" } else { "not in use" };
        writeln!(
            text,
            "{replayed} of {evaluations} evaluations that were measured were replays of CUDA graphs ({graphs} recorded); kernels of our own were {kernels}"
        )?;
    }
    if let Some(RatesFigures { matrices, convolution }) = figures.rates {
        writeln!(
            text,
            "the device at its best: matrices {:.3} TFLOP/s, a 3×3 convolution {:.3} TFLOP/s",
            matrices / 1e12,
            convolution / 1e12
        )?;
    }
    Ok(())
}

fn latency(one: &LatencyFigures, rates: Option<&RatesFigures>) -> String {
    let rate = one.work.map(|work| work / one.evaluation.median);
    let share = rate
        .zip(rates)
        .map(|(rate, best)| format!(" ({:.0} % of the best)", 100.0 * rate / best.matrices.max(best.convolution)));
    let rate = rate.map(|rate| format!("{:.3}", rate / 1e12)).unwrap_or_default();
    let Spread { min, median, max } = one.total;
    let total = format!("{median:.2} ({min:.2} to {max:.2})");
    let [evaluation, text, decode, png] = [one.evaluation, one.text, one.decode, one.png].map(millis);
    let share = share.unwrap_or_default();
    format!("| {} | {} | {total} | {evaluation} | {text} | {decode} | {png} | {rate}{share} |", one.size, one.steps)
}

fn millis(Spread { min, median, max }: Spread) -> String {
    format!("{:.1} ({:.1} to {:.1})", 1e3 * median, 1e3 * min, 1e3 * max)
}
