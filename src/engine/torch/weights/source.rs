//! Where a file keeps a tensor: not every file has for each that a module asks for one of its own.

use std::ops::Range;

use safetensors::tensor::TensorInfo;
use tch::Tensor;

use crate::engine::torch::error::Forward;

/// A tensor of a file, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine::torch) struct TensorSource {
    /// The tensor's name in the file.
    pub(super) name: String,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    /// One of so many that lie there one below the other, all of one shape.
    Rows {
        part: usize,
        parts: usize,
    },
    Transposed,
}

impl From<String> for TensorSource {
    fn from(name: String) -> Self {
        Self { name, form: Form::Whole }
    }
}

impl TensorSource {
    /// Of the tensor `name`, which is `parts` tensors of one shape one below the other, the one with number `part`.
    pub(in crate::engine::torch) fn rows(name: String, part: usize, parts: usize) -> Self {
        Self { name, form: Form::Rows { part, parts } }
    }

    /// The matrix `name`, whose rows are columns to modules.
    pub(in crate::engine::torch) fn transposed(name: String) -> Self {
        Self { name, form: Form::Transposed }
    }

    /// The shape that the whole tensor must have for a module to get one of `shape`.
    pub(super) fn shape(&self, shape: &[i64]) -> Vec<i64> {
        let mut shape = shape.to_vec();
        match (self.form, shape.first_mut()) {
            (Form::Rows { parts, .. }, Some(rows)) => *rows *= parts as i64,
            (Form::Transposed, _) => shape.reverse(),
            _ => {}
        }
        shape
    }

    /// What a module gets of the `whole` tensor, in place where it lies there in one piece.
    pub(super) fn view(&self, whole: &Tensor) -> Forward {
        match self.form {
            Form::Whole => Ok(whole.shallow_clone()),
            Form::Rows { part, parts } => {
                let rows = whole.size().first().copied().unwrap_or(0) / parts as i64;
                whole.f_narrow(0, rows * part as i64, rows)
            }
            Form::Transposed => whole.f_transpose(0, 1)?.f_contiguous(),
        }
    }

    /// Where the bytes of what a module gets lie, from the first of all tensors' on.
    pub(super) fn range(&self, whole: &TensorInfo) -> Range<usize> {
        let (start, end) = whole.data_offsets;
        match self.form {
            Form::Rows { part, parts } => {
                let size = (end - start) / parts;
                start + size * part..start + size * (part + 1)
            }
            Form::Whole | Form::Transposed => start..end,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use safetensors::tensor::Dtype;
    use tch::{Device, Kind};

    fn whole() -> Tensor {
        Tensor::arange(12, (Kind::Float, Device::Cpu)).reshape([6, 2])
    }

    #[test]
    fn rows_are_a_part_of_the_same_memory() {
        let source = TensorSource::rows("in_proj".into(), 1, 3);
        assert_eq!(source.shape(&[2, 2]), [6, 2]);
        let (whole, rows) = (whole(), source.view(&whole()).unwrap());
        assert_eq!(Vec::<Vec<f32>>::try_from(rows).unwrap(), [[4.0, 5.0], [6.0, 7.0]]);
        let rows = source.view(&whole).unwrap();
        assert_eq!(rows.data_ptr() as usize - whole.data_ptr() as usize, 4 * 4);
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![6, 2], data_offsets: (100, 148) };
        assert_eq!(source.range(&info), 116..132);
    }

    #[test]
    fn a_transposed_matrix_is_turned() {
        let source = TensorSource::transposed("projection".into());
        assert_eq!(source.shape(&[2, 6]), [6, 2]);
        let turned = source.view(&whole()).unwrap();
        assert!(turned.is_contiguous());
        let expected = [[0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]];
        assert_eq!(Vec::<Vec<f32>>::try_from(turned).unwrap(), expected);
    }

    #[test]
    fn what_has_a_name_of_its_own_is_taken_whole() {
        let source = TensorSource::from("weight".to_owned());
        let whole = whole();
        assert_eq!((source.shape(&[6, 2]), source.view(&whole).unwrap().data_ptr()), (vec![6, 2], whole.data_ptr()));
    }
}
