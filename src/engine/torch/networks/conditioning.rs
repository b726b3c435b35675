//! What a UNet is told of what to draw: the triple of everything that a family may condition on.

use tch::{TchError, Tensor};

use crate::engine::torch::error::Forward;

/// What a prompt, and for some families the picture's size or an image, are to a UNet; one row or several.
#[derive(Debug)]
pub(in crate::engine::torch) struct Conditioning {
    /// Keys and values of every cross-attention, `[rows, tokens, 2 · channels]` each, in the order in which the UNet comes to them.
    pub(in crate::engine::torch) cross_attention: Vec<Tensor>,
    /// What is added to the embedding of the time, `[rows, time]`: SDXL's pooled text and sizes. SD v1 has none.
    pub(in crate::engine::torch) vector: Option<Tensor>,
    /// Channels beside the latents, `[rows, channels, height, width]`: mask and masked image of a UNet with nine of them.
    pub(in crate::engine::torch) concat: Option<Tensor>,
}

impl Conditioning {
    /// That of a text alone.
    pub(in crate::engine::torch) fn of_text(cross_attention: Vec<Tensor>) -> Self {
        Self { cross_attention, vector: None, concat: None }
    }

    /// Its size.
    pub(in crate::engine::torch) fn bytes(&self) -> usize {
        self.tensors().map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum()
    }

    /// Tokens that the cross-attentions see.
    pub(in crate::engine::torch) fn tokens(&self) -> u64 {
        self.cross_attention.first().map_or(0, |text| text.size()[1] as u64)
    }

    /// What `make` gives of each tensor; the first error ends it.
    pub(in crate::engine::torch) fn map(&self, make: impl Fn(&Tensor) -> Forward) -> Forward<Self> {
        let option = |tensor: &Option<Tensor>| tensor.as_ref().map(&make).transpose();
        Ok(Self {
            cross_attention: self.cross_attention.iter().map(&make).collect::<Forward<_>>()?,
            vector: option(&self.vector)?,
            concat: option(&self.concat)?,
        })
    }

    /// The same memory.
    pub(in crate::engine::torch) fn view(&self) -> Self {
        Self {
            cross_attention: self.cross_attention.iter().map(Tensor::shallow_clone).collect(),
            vector: self.vector.as_ref().map(Tensor::shallow_clone),
            concat: self.concat.as_ref().map(Tensor::shallow_clone),
        }
    }

    /// All tensors, in an order that is the same for all of one UNet.
    pub(in crate::engine::torch) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.cross_attention.iter().chain(&self.vector).chain(&self.concat)
    }

    /// `rows`, which are of one UNet, one below the other.
    pub(in crate::engine::torch) fn stacked(rows: &[&Self]) -> Forward<Self> {
        let Some(first) = rows.first() else { return Err(TchError::Shape("conditioning without a row".into())) };
        let cat = |part: &dyn Fn(&Self) -> Option<&Tensor>| {
            let parts: Option<Vec<&Tensor>> = rows.iter().map(|row| part(row)).collect();
            let parts =
                parts.ok_or_else(|| TchError::Shape("rows of one UNet are conditioned on different things".into()));
            Tensor::f_cat(&parts?, 0)
        };
        let layers = 0..first.cross_attention.len();
        Ok(Self {
            cross_attention: layers.map(|i| cat(&|row| row.cross_attention.get(i))).collect::<Forward<_>>()?,
            vector: first.vector.as_ref().map(|_| cat(&|row| row.vector.as_ref())).transpose()?,
            concat: first.concat.as_ref().map(|_| cat(&|row| row.concat.as_ref())).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tch::{Device, Kind};

    use super::*;

    fn row(value: f64, vector: bool) -> Conditioning {
        let tensor = |shape: &[i64]| Tensor::full(shape, value, (Kind::Float, Device::Cpu));
        let cross_attention = vec![tensor(&[1, 7, 4]), tensor(&[1, 7, 6])];
        Conditioning { cross_attention, vector: vector.then(|| tensor(&[1, 3])), concat: Some(tensor(&[1, 5, 2, 2])) }
    }

    #[test]
    fn rows_are_stacked_part_by_part() {
        let stacked = Conditioning::stacked(&[&row(1.0, true), &row(2.0, true)]).unwrap();
        let sizes: Vec<_> = stacked.tensors().map(Tensor::size).collect();
        assert_eq!(sizes, [vec![2, 7, 4], vec![2, 7, 6], vec![2, 3], vec![2, 5, 2, 2]]);
        for (i, value) in [(0, 1.0), (1, 2.0)] {
            let of_row = row(value, true);
            let pairs = stacked.tensors().zip(of_row.tensors());
            pairs.for_each(|(all, own)| assert_eq!(all.narrow(0, i, 1), *own));
        }
        assert_eq!(stacked.tokens(), 7);
    }

    #[test]
    fn rows_of_different_parts_are_refused() {
        assert!(Conditioning::stacked(&[&row(1.0, true), &row(2.0, false)]).is_err());
        assert!(Conditioning::stacked(&[]).is_err());
    }
}
