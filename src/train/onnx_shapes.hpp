#pragma once
#include <fmt/ranges.h>

#include <list>
#include <numeric>

#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/spatial.hpp"
#include "src/train/onnx_values.hpp"

namespace halftone {

/// The operations that change or tell shapes and no number.
class OnnxShapes : protected OnnxValues {
 protected:
  using OnnxValues::OnnxValues;

  Extent extent(const Numbers& numbers, const char* what) const {
    constexpr std::int64_t most = 1 << 16;
    need(numbers.size() == 2 && std::ranges::all_of(numbers, [](std::int64_t x) { return x >= 0 && x <= most; }),
         fmt::format("has {} [{}], not one for h and one for w", what, fmt::join(numbers, ", ")));
    return {static_cast<int>(numbers[0]), static_cast<int>(numbers[1])};
  }

  /// At the top, left, bottom and right.
  Numbers pads_of(const Shape& x, Extent window, Extent stride, Extent dilation) const {
    const AttributeProto* automatic = attribute("auto_pad");
    const std::string mode = automatic ? automatic->s() : "NOTSET";
    const Numbers pads = wholes("pads", {0, 0, 0, 0});
    need(pads.size() == 4, "has not four pads");
    if (mode == "SAME_UPPER") {
      const auto both = [](std::int64_t size, int window, int stride, int dilation) {
        need_positive(stride);
        const std::int64_t out = (size + stride - 1) / stride;
        return std::max<std::int64_t>(0, (out - 1) * stride + std::int64_t{dilation} * (window - 1) + 1 - size);
      };
      const std::int64_t h = both(x.h, window.h, stride.h, dilation.h), w = both(x.w, window.w, stride.w, dilation.w);
      return {h / 2, w / 2, h - h / 2, w - w / 2};
    }
    if (mode == "VALID") return {0, 0, 0, 0};
    need(mode == "NOTSET", fmt::format("has auto_pad {}, which Halftone lacks", mode));
    return pads;
  }
  /// Padding on all sides and what comes at the bottom and right besides.
  std::pair<Extent, Extent> padding(const Numbers& pads) const {
    need(pads[0] <= pads[2] && pads[1] <= pads[3], "has more padding at the top or left than at the other end");
    return {extent({pads[0], pads[1]}, "pads"), extent({pads[2] - pads[0], pads[3] - pads[1]}, "pads")};
  }
  static void need_positive(int stride) {
    if (stride < 1) fail("a stride is 0");
  }

  /// Of an image's four axes, which have the order n, c, h, w.
  void pad() {
    const AttributeProto* mode = attribute("mode");
    need(!mode || mode->s() == "constant", "pads with something else than a constant");
    need(scalar(2, real("value", 0)) == 0, "pads with something else than zeros");
    const auto pads = has(1) ? numbers_at(1) : std::optional(wholes("pads"));
    const auto axes = has(3) ? numbers_at(3) : std::optional(Numbers{0, 1, 2, 3});
    need(pads && axes && pads->size() == 2 * axes->size(), "has not two pads for each axis");
    Numbers p(8, 0);
    for (std::size_t i = 0; i < axes->size(); ++i) {
      const std::int64_t axis = (*axes)[i] + ((*axes)[i] < 0 ? 4 : 0);
      need(axis >= 0 && axis < 4, "pads an axis that is not there");
      p[at(axis)] = (*pads)[i], p[at(axis + 4)] = (*pads)[i + axes->size()];
    }
    need(p[0] == 0 && p[1] == 0 && p[4] == 0 && p[5] == 0, "pads the batch or the channels");
    const auto margin = [&](std::size_t i) {
      return static_cast<int>(std::clamp<std::int64_t>(p[i], -(1 << 24), 1 << 24));
    };
    const Margins margins{margin(2), margin(6), margin(3), margin(7)};
    put(pad2d(image_at(0), margins), 4);
  }

  /// Rows of numbers, the last first.
  void reverse() {
    const Numbers numbers = *numbers_at(0);
    const std::int64_t columns = columns_at(0);
    Numbers result;
    for (auto row = std::ssize(numbers) / columns; row-- > 0;)
      result.insert(result.end(), numbers.begin() + row * columns, numbers.begin() + (row + 1) * columns);
    put({.numbers = result, .columns = columns});
  }

  std::int64_t columns_at(int i) const {
    const auto found = items_.find(node_->input(i));
    return found == items_.end() ? 1 : found->second.columns;
  }

  /// Whether this is f of whole numbers that are known already, a single one as often as the other side needs it.
  template <class F>
  bool is_of_numbers(F f) {
    const auto a = numbers_at(0), b = numbers_at(1);
    if (!a || !b) return false;
    const auto small = [](std::int64_t x) { return x >= -(std::int64_t{1} << 31) && x <= std::int64_t{1} << 31; };
    need(!a->empty() && !b->empty() && (a->size() == b->size() || a->size() == 1 || b->size() == 1),
         "takes numbers of two shapes");
    need(std::ranges::all_of(*a, small) && std::ranges::all_of(*b, small), "takes numbers beyond 2^31");
    Numbers result(std::max(a->size(), b->size()));
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = f((*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]);
    put({.numbers = result});
    return true;
  }

  /// Channels, rows or columns that follow each other, or numbers of a shape.
  void slice() {
    const auto of = [&](int i, const char* name, Numbers otherwise) {
      return has(i) ? numbers_at(i).value_or(Numbers()) : wholes(name, std::move(otherwise));
    };
    const Numbers starts = of(1, "starts", {}), ends = of(2, "ends", {});
    Numbers all(starts.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
    const Numbers axes = of(3, "axes", all), steps = of(4, "steps", Numbers(starts.size(), 1));
    need(!starts.empty() && ends.size() == starts.size() && axes.size() == starts.size(),
         "takes a part that is not known before the net runs");
    if (numbers_at(0) && steps == Numbers{-1} && starts == Numbers{-1} && ends[0] < -(1 << 24) && axes == Numbers{0})
      return reverse();
    need(steps == Numbers(starts.size(), 1), "leaves places out");
    const auto part = [&](std::size_t i, std::int64_t extent) {
      const auto place = [&](std::int64_t x) { return std::clamp<std::int64_t>(x < 0 ? x + extent : x, 0, extent); };
      const std::pair result{place(starts[i]), place(ends[i])};
      need(result.first < result.second, "takes nothing");
      return result;
    };
    if (const auto numbers = numbers_at(0)) {
      need(axes == Numbers{0}, "takes a part of numbers along another axis");
      const auto [first, last] = part(0, std::ssize(*numbers));
      return put({.numbers = Numbers(numbers->begin() + first, numbers->begin() + last)});
    }
    Item x = item(0);
    need(x.image.h * x.image.w <= 1, "takes a part of a flattened image");
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const std::int64_t axis = axes[i] < 0 ? axes[i] + x.rank : axes[i];
      need(axis > 0 && axis < x.rank, "takes a part of the batch");
      if (axis == 1) {
        const auto [first, last] = part(i, x.value.shape().c);
        x.value = halftone::slice(x.value, first, last - first);
        continue;
      }
      const std::int64_t extent = axis == 2 ? x.value.shape().h : x.value.shape().w;
      const auto [first, last] = part(i, extent);
      const int before = static_cast<int>(-first), after = static_cast<int>(last - extent);
      x.value = pad2d(x.value, axis == 2 ? Margins{before, after, 0, 0} : Margins{0, 0, before, after});
    }
    put(std::move(x));
  }

  /// Into groups of channels.
  void split() {
    const Item x = item(0);
    const std::int64_t axis = whole("axis", 0) + (whole("axis", 0) < 0 ? x.rank : 0), channels = x.value.shape().c,
                       count = node_->output_size();
    need(axis == 1 && !is_image(x), "cuts along another axis than the channels");
    const std::int64_t each = (channels + count - 1) / count;
    auto parts = has(1) ? numbers_at(1) : std::optional(wholes("split"));
    if (parts && parts->empty())
      for (std::int64_t first = 0; first < channels; first += each) parts->push_back(std::min(each, channels - first));
    need(parts && std::ssize(*parts) == count && std::ranges::all_of(*parts, [](std::int64_t p) { return p > 0; }) &&
             std::accumulate(parts->begin(), parts->end(), std::int64_t{0}) == channels,
         "cuts into other parts than the channels have");
    std::int64_t first = 0;
    for (int i = 0; i < node_->output_size(); first += (*parts)[at(i)], ++i)
      items_[node_->output(i)] = {halftone::slice(x.value, first, (*parts)[at(i)]), x.rank};
  }

  /// Where nothing changes places: axes of extent 1 do not count.
  void transpose() {
    if (transposed_.contains(node_->output(0))) return;
    if (const auto numbers = numbers_at(0)) {
      const std::int64_t columns = columns_at(0), rows = std::ssize(*numbers) / columns;
      need(wholes("perm") == Numbers({1, 0}) && !numbers->empty() && !constant_at(0),
           "changes the order of axes of numbers");
      Numbers result;
      for (std::int64_t c = 0; c < columns; ++c)
        for (std::int64_t r = 0; r < rows; ++r) result.push_back((*numbers)[at(r * columns + c)]);
      return put({.numbers = result, .columns = rows});
    }
    const Item x = item(0);
    const Shape s = x.value.shape();
    const Numbers extents = x.rank == 4 ? Numbers{s.n, s.c, s.h, s.w} : Numbers{s.n, s.c};
    Numbers order = wholes("perm");
    std::erase_if(order, [&](std::int64_t axis) { return axis < 0 || axis >= x.rank || extents[at(axis)] == 1; });
    const bool same = wholes("perm").size() == extents.size() && std::ranges::is_sorted(order) &&
                      (order.empty() || (order[0] == 0) == (s.n > 1));
    need(same && x.rank == 4 && wholes("perm")[0] == 0 && (wholes("perm") == Numbers({0, 1, 2, 3}) || s.h * s.w == 1),
         "changes the order of axes");
    put(x);
  }

  /// By a whole factor, as PyTorch's nn.Upsample.
  void resize() {
    const Value x = image_at(0);
    const auto text = [&](const char* name, const char* otherwise) {
      const AttributeProto* found = attribute(name);
      return found ? found->s() : std::string(otherwise);
    };
    const bool old = node_->op_type() == "Upsample";
    const std::string mode = text("mode", "nearest"),
                      places = text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
                      rounds = text("nearest_mode", old ? "floor" : "round_prefer_floor");
    const int of_scales = old || node_->input_size() == 2 ? 1 : 2;  // Resize of opset 10 has no region of interest
    std::vector<float> factors;
    if (has(of_scales) && factors_.contains(node_->input(of_scales))) factors = factors_.at(node_->input(of_scales));
    if (const TensorProto* scales = constant_at(of_scales); scales && elements_of(*scales) == 4)
      factors = floats(*scales);
    if (const auto sizes = has(3) ? numbers_at(3) : std::optional<Numbers>(); sizes && sizes->size() == 4) {
      const Shape s = x.shape();
      factors = {1};  // whatever batch the file was made with
      for (const auto& [to, from] :
           {std::pair((*sizes)[1], s.c), std::pair((*sizes)[2], s.h), std::pair((*sizes)[3], s.w)})
        factors.push_back(static_cast<float>(to) / static_cast<float>(from));
    }
    const auto fits = [](float f) { return f >= 1 && f < 1 << 16 && f == std::floor(f); };
    need(factors.size() == 4 && factors[0] == 1 && factors[1] == 1 && fits(factors[2]) && fits(factors[3]),
         "has no whole factors for h and w that are known before the net runs");
    const Extent factor{static_cast<int>(factors[2]), static_cast<int>(factors[3])};
    const bool halves = places == "half_pixel" || places == "pytorch_half_pixel";
    const bool nearest =
        mode == "nearest" && ((places == "asymmetric" && rounds == "floor") || (halves && rounds.starts_with("round")));
    const bool linear = mode == "linear" && halves;
    need(nearest || linear, fmt::format("has mode {} at places {}, which Halftone lacks", mode, places));
    put(upsample2d(x, factor, nearest ? Interpolation::nearest : Interpolation::bilinear), 4);
  }

  void concat() {
    if (const auto first = numbers_at(0)) {
      Numbers all;
      for (int i = 0; i < node_->input_size(); ++i) {
        const auto part = numbers_at(i);
        need(part.has_value(), "joins what is not known before the net runs");
        all.insert(all.end(), part->begin(), part->end());
      }
      need(all.size() <= 4096, "joins thousands of numbers");
      return put({.numbers = all});
    }
    if (constant_at(0)) {
      std::vector<float>& all = factors_[node_->output(0)];
      for (int i = 0; i < node_->input_size(); ++i)
        for (const float x : floats(weight_at(i))) all.push_back(x);
      return;
    }
    std::vector<Value> values;
    const int rank = item(0).rank;
    for (int i = 0; i < node_->input_size(); ++i) {
      need(item(i).rank == rank && item(i).image.h * item(i).image.w <= 1, "joins images and flattened ones");
      values.push_back(item(i).value);
    }
    need(whole("axis", 1) == 1 || whole("axis", 1) == 1 - rank, "joins along another axis than the channels");
    put(halftone::concat(values), rank);
  }

  /// Whether its features are those of more than one pixel.
  static bool is_image(const Item& x) { return x.image.h * x.image.w > 1; }

  void flat() {
    Item x = item(0);
    if (x.rank != 2) {
      const Shape s = x.value.shape();
      x = {halftone::flatten(x.value), 2, s.h * s.w > 1 ? Shape{1, s.h, s.w, s.c} : Shape{}};
    }
    put(std::move(x));
  }

  void flatten() {
    need(whole("axis", 1) == 1, "flattens along another axis than the first");
    flat();
  }

  void reshape() {
    if (const auto numbers = numbers_at(0)) {
      const auto to = numbers_at(1);
      const std::int64_t columns = to && to->size() == 2 && to->back() > 0 ? to->back() : 1;
      need(to && !numbers->empty() && (to->size() == 1 || (to->size() == 2 && to->front() == -1 && to->back() > 0)) &&
               std::ssize(*numbers) % columns == 0,
           "gives numbers another shape than that of a list or of rows");
      return put({.numbers = numbers, .columns = columns});
    }
    const Item& x = item(0);
    auto shape = numbers_at(1);
    need(shape.has_value(), "takes a shape that is not known before the net runs");
    const Shape s = x.value.shape();
    const Numbers now = x.rank == 4 ? Numbers{s.n, s.c, s.h, s.w} : Numbers{s.n, s.features()};
    for (std::size_t i = 0; i < shape->size() && i < now.size(); ++i)
      if ((*shape)[i] == 0) (*shape)[i] = now[i];
    const bool matrix = shape->size() == 2 && ((*shape)[1] == s.features() || (*shape)[1] == -1);
    if (matrix) return flat();
    const bool pixel = x.rank == 2 && shape->size() == 4 && (*shape)[2] == 1 && (*shape)[3] == 1 && !is_image(x);
    if (pixel && ((*shape)[1] == s.features() || (*shape)[1] == -1)) return put(x.value, 4);
    need(*shape == now, fmt::format("reshapes to [{}], and Halftone flattens only", fmt::join(*shape, ", ")));
    put(x);
  }

  /// Whether these are different axes of `rank`, all behind the channels.
  static bool are_of_a_pixel(Numbers axes, int rank) {
    for (std::int64_t& axis : axes) axis += axis < 0 ? rank : 0;
    std::ranges::sort(axes);
    return std::ranges::adjacent_find(axes) == axes.end() &&
           std::ranges::all_of(axes, [&](std::int64_t axis) { return axis >= 2 && axis < rank; });
  }

  /// Of a single pixel's h and w; a tensor may be left with one of them.
  void squeeze() {
    if (const auto numbers = numbers_at(0)) return put({.numbers = numbers});
    const Item x = item(0);
    const Shape s = x.value.shape();
    Numbers axes = has(1) ? numbers_at(1).value_or(Numbers()) : wholes("axes");
    for (int axis = 2; axis < x.rank && std::ssize(axes) < x.rank - 2 && !has(1) && !attribute("axes"); ++axis)
      axes.push_back(axis);
    need(s.h == 1 && s.w == 1 && x.rank > 2 && !axes.empty() && are_of_a_pixel(axes, x.rank),
         "takes away another axis than an image's h and w of 1");
    put(x.value, x.rank - static_cast<int>(axes.size()));
  }

  void unsqueeze() {
    if (const auto numbers = numbers_at(0)) return put({.numbers = numbers});
    const Item x = item(0);
    const Numbers axes = has(1) ? numbers_at(1).value_or(Numbers()) : wholes("axes");
    const int rank = x.rank + static_cast<int>(axes.size());
    need(!axes.empty() && rank <= 4 && !is_image(x) && are_of_a_pixel(axes, rank), "adds other axes than h and w of 1");
    put(x.value, rank);
  }

  void constant_of_shape() {
    const auto count = numbers_at(0);
    const AttributeProto* value = attribute("value");
    const auto of = value && value->has_t() ? integers_of(value->t()) : std::nullopt;
    need(count && count->size() == 1 && count->front() >= 0 && count->front() <= 64 && of && of->size() == 1,
         "fills a tensor");
    put({.numbers = Numbers(at(count->front()), of->front())});
  }

  void identity() {
    need(!transposed_.contains(node_->input(0)), "takes a transposed constant");
    if (const TensorProto* tensor = constant_at(0)) {
      constants_[node_->output(0)] = tensor;
    } else if (const auto numbers = numbers_at(0)) {
      put({.numbers = numbers});
    } else {
      put(item(0));
    }
  }

  void cast() {
    const std::int64_t to = whole("to", 0);
    const bool floats = to == TensorProto::FLOAT || to == TensorProto::FLOAT16 || to == TensorProto::BFLOAT16 ||
                        to == TensorProto::DOUBLE;
    need(floats || numbers_at(0), "makes something else than floats of a tensor");
    identity();
  }

  void constant() { need(constants_.contains(node_->output(0)), "holds no tensor"); }

  /// The tensor of a Constant, which may be numbers in its attributes; null where it has none.
  const TensorProto* held() {
    if (const AttributeProto* value = attribute("value")) return value->has_t() ? &value->t() : nullptr;
    for (const AttributeProto& value : node_->attribute()) {
      TensorProto tensor;
      const bool is_list = value.name() == "value_ints" || value.name() == "value_floats";
      if (value.name() == "value_int") tensor.add_int64_data(value.i());
      if (value.name() == "value_float") tensor.add_float_data(value.f());
      if (value.name() == "value_ints") *tensor.mutable_int64_data() = value.ints();
      if (value.name() == "value_floats") *tensor.mutable_float_data() = value.floats();
      if (!is_list && tensor.int64_data().empty() && tensor.float_data().empty()) continue;
      tensor.set_data_type(value.name().starts_with("value_int") ? TensorProto::INT64 : TensorProto::FLOAT);
      if (is_list) tensor.add_dims(tensor.int64_data_size() + tensor.float_data_size());
      return &made_.emplace_back(std::move(tensor));
    }
    return nullptr;
  }

  void shape() {
    Numbers all;
    if (const TensorProto* tensor = constant_at(0)) {
      all.assign(tensor->dims().begin(), tensor->dims().end());
    } else if (const auto numbers = numbers_at(0)) {
      all = {std::ssize(*numbers)};
    } else {
      const Item& x = item(0);
      const Shape s = x.value.shape();
      all = x.rank == 4 ? Numbers{s.n, s.c, s.h, s.w} : Numbers{s.n, s.features()};
      all.resize(at(x.rank), 1);
    }
    const auto place = [&](const char* name, std::int64_t otherwise) {
      const std::int64_t at = whole(name, otherwise);
      return std::clamp<std::int64_t>(at < 0 ? at + std::ssize(all) : at, 0, std::ssize(all));
    };
    const std::int64_t first = place("start", 0), last = place("end", std::ssize(all));
    need(first <= last, "tells nothing");
    put({.numbers = Numbers(all.begin() + first, all.begin() + last)});
  }

  void gather() {
    const auto from = numbers_at(0), which = numbers_at(1);
    need(from && which, "picks from a tensor");
    Numbers picked;
    for (std::int64_t i : *which) {
      i += i < 0 ? std::ssize(*from) : 0;
      need(i >= 0 && i < std::ssize(*from), "picks what is not there");
      picked.push_back((*from)[at(i)]);
    }
    put({.numbers = picked});
  }

  std::map<std::string, std::vector<float>> factors_;  // numbers that are known before anything runs
  std::list<TensorProto> made_;                        // of constants that are attributes
};

}  // namespace halftone
