//! Do the kernels compute what libtorch's operators do, on the GPU that is here?

use tch::{Kind, TchError, Tensor};

use super::{Kernels, Norm};
use crate::engine::torch::error::Forward;

const CHANNELS: i64 = 64;
const GROUPS: i64 = 32;
const NORM_EPSILON: f64 = 1e-5;

/// What a kernel makes, and libtorch in f32.
type Compared = (Option<Tensor>, Tensor);

impl Kernels {
    /// By how much they are off at most in `kind`, where 1 is as much as its rounding explains.
    ///
    /// # Errors
    /// libtorch's, or CUDA's, as where the GPU is none that they were compiled for.
    pub(in crate::engine::torch) fn deviation(&self, kind: Kind) -> Forward<f64> {
        let mut worst = 0.0_f64;
        // An image that takes one launch, and one that takes two; of pixels that do not come out even.
        let norms = [self.norms(kind, &self.image(kind, [13, 21])?)?, self.norms(kind, &self.image(kind, [33, 37])?)?];
        let rest = [self.gates(kind)?, self.residuals(kind)?, self.biases(kind)?];
        let [sum, normalised] = self.sums(kind)?;
        for (ours, theirs) in norms.into_iter().chain(rest).chain([sum, normalised]) {
            let ours = ours.ok_or_else(|| TchError::Torch("a kernel does not take what it is for".into()))?;
            let off = wide(&ours)?.f_sub(&theirs)?.f_abs()?.f_div(&theirs.f_abs()?.f_add_scalar(1)?)?;
            // What is no number is as far off as can be; `max` would pass it over.
            let off = off.f_nan_to_num(f64::INFINITY, None, None)?;
            worst = worst.max(f64::try_from(off.f_max()?)? / grain(kind));
        }
        Ok(worst)
    }

    fn norms(&self, kind: Kind, x: &Tensor) -> Forward<Compared> {
        let (input_bias, time_shift) = (self.random(&[CHANNELS], kind)?, self.random(&[2, CHANNELS], kind)?);
        let (weight, bias) = (self.random(&[CHANNELS], kind)?, self.random(&[CHANNELS], kind)?);
        let norm = Norm {
            weight: &weight,
            bias: &bias,
            groups: GROUPS,
            epsilon: NORM_EPSILON,
            input_bias: Some(&input_bias),
            time_shift: Some(&time_shift),
            silu: true,
        };
        let shifted = wide(x)?.f_add(&by_channel(&input_bias)?)?.f_add(&by_channel(&time_shift)?)?;
        let theirs = shifted.f_group_norm(GROUPS, Some(wide(&weight)?), Some(wide(&bias)?), NORM_EPSILON, false)?;
        Ok((self.group_norm(x, norm)?, theirs.f_silu()?))
    }

    fn gates(&self, kind: Kind) -> Forward<Compared> {
        let x = self.random(&[2, 40, 2 * CHANNELS], kind)?;
        let halves = wide(&x)?.f_chunk(2, 2)?;
        Ok((self.geglu(&x)?, halves[0].f_mul(&halves[1].f_gelu("none")?)?))
    }

    fn residuals(&self, kind: Kind) -> Forward<Compared> {
        let (y, x, bias) = (self.image(kind, [13, 21])?, self.image(kind, [13, 21])?, self.random(&[CHANNELS], kind)?);
        let twice = by_channel(&bias)?.f_mul_scalar(2)?;
        let theirs = wide(&y)?.f_add(&wide(&x)?)?.f_add(&twice)?;
        Ok((self.add_residual(&y, Some(&x), &bias, Some(&bias))?, theirs))
    }

    fn biases(&self, kind: Kind) -> Forward<Compared> {
        let (y, bias) = (self.image(kind, [13, 21])?, self.random(&[CHANNELS], kind)?);
        let theirs = wide(&y)?.f_add(&by_channel(&bias)?)?;
        Ok((self.add_residual(&y, None, &bias, None)?, theirs))
    }

    /// A sum, and its normalisation over a width that is not the same for all threads.
    fn sums(&self, kind: Kind) -> Forward<[Compared; 2]> {
        let width = 5 * CHANNELS + 8;
        let (x, more) = (self.random(&[2, 51, width], kind)?, self.random(&[2, 51, width], kind)?);
        let (weight, bias) = (self.random(&[width], kind)?, self.random(&[width], kind)?);
        let theirs = x.f_add(&more)?;
        let normalised =
            wide(&theirs)?.f_layer_norm([width], Some(wide(&weight)?), Some(wide(&bias)?), NORM_EPSILON, false)?;
        let ours = self.add_layer_norm((&x, &more), (&weight, &bias), NORM_EPSILON)?;
        let [sum, y] = ours.map_or([None, None], |ours| ours.map(Some));
        Ok([(sum, wide(&theirs)?), (y, normalised)])
    }

    fn random(&self, shape: &[i64], kind: Kind) -> Forward {
        Tensor::f_randn(shape, (Kind::Float, self.device))?.f_to_kind(kind)
    }

    /// Channels last, of this height and width.
    fn image(&self, kind: Kind, [height, width]: [i64; 2]) -> Forward {
        self.random(&[2, height, width, CHANNELS], kind)?.f_permute([0, 3, 1, 2])
    }
}

fn wide(x: &Tensor) -> Forward {
    x.f_to_dtype(Kind::Float, false, true)
}

fn by_channel(x: &Tensor) -> Forward {
    wide(x)?.f_reshape([-1, CHANNELS, 1, 1])
}

/// What rounding may do to a number of about 1, several times.
fn grain(kind: Kind) -> f64 {
    match kind {
        Kind::Half => 2e-3,
        Kind::BFloat16 => 2e-2,
        _ => 2e-5,
    }
}
