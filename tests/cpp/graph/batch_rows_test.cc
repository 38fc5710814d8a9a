// Rows put together for a batch, and taken apart again.
#include "cpp_ext/graph/batch_rows.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cpp_ext/graph/batch_slab.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

tf::Tensor Floats(std::vector<float> values, std::initializer_list<int64_t> shape) {
  tf::Tensor tensor(tf::DT_FLOAT, tf::TensorShape(shape));
  std::copy(values.begin(), values.end(), tensor.flat<float>().data());
  return tensor;
}

std::vector<float> Values(const tf::Tensor& tensor) {
  const auto flat = tensor.flat<float>();
  return std::vector<float>(flat.data(), flat.data() + flat.size());
}

TEST(CopyRows, PutsRowsInTheirPlace) {
  tf::Tensor to(tf::DT_FLOAT, {3, 2});
  CopyRows(Floats({1, 2}, {1, 2}), -1, nullptr, 2, &to);
  CopyRows(Floats({3, 4, 5, 6}, {2, 2}), -1, nullptr, 0, &to);
  EXPECT_EQ(Values(to), (std::vector<float>{3, 4, 5, 6, 1, 2}));
}

TEST(CopyRows, FillsAShorterDimensionWithTheStatedValue) {
  tf::Tensor to(tf::DT_FLOAT, {2, 3, 2});
  const tf::Tensor value = Floats({-1}, {});
  CopyRows(Floats({1, 2, 3, 4}, {1, 2, 2}), 1, &value, 0, &to);
  CopyRows(Floats({}, {1, 0, 2}), 1, &value, 1, &to);  // of length 0
  EXPECT_EQ(Values(to), (std::vector<float>{1, 2, 3, 4, -1, -1, -1, -1, -1, -1, -1, -1}));
}

TEST(CopyRows, CopiesStringsOfAnyKind) {
  tf::Tensor from(tf::DT_STRING, {2}), to(tf::DT_STRING, {3});
  from.flat<tf::tstring>()(0) = std::string("a\0b", 3);
  from.flat<tf::tstring>()(1) = std::string(100000, 'x');
  CopyRows(from, -1, nullptr, 1, &to);
  EXPECT_EQ(to.flat<tf::tstring>()(0), "");
  EXPECT_EQ(to.flat<tf::tstring>()(1), std::string("a\0b", 3));
  EXPECT_EQ(to.flat<tf::tstring>()(2), std::string(100000, 'x'));
}

TEST(FillRows, RepeatsARealRowOrWritesZeros) {
  tf::Tensor to = Floats({1, 2, 9, 9, 9, 9}, {3, 2});
  FillRows(0, 1, 2, &to);
  FillRows(-1, 2, 3, &to);
  EXPECT_EQ(Values(to), (std::vector<float>{1, 2, 1, 2, 0, 0}));
}

TEST(TakeRows, IsTheTensorItselfWhenAllRowsAreTaken) {
  const tf::Tensor from = Floats({1, 2, 3, 4}, {2, 2});
  EXPECT_TRUE(TakeRows(from, 0, 2).SharesBufferWith(from));
}

TEST(TakeRows, FewRowsDoNotKeepALargeBatchInMemory) {
  tf::Tensor from(tf::DT_FLOAT, {64, 16});  // rows of 64 bytes: every one is aligned
  from.flat<float>().setConstant(7);
  EXPECT_FALSE(TakeRows(from, 3, 1).SharesBufferWith(from));
  EXPECT_TRUE(TakeRows(from, 16, 32).SharesBufferWith(from));
  EXPECT_EQ(Values(TakeRows(from, 3, 1)), std::vector<float>(16, 7));
}

TEST(TakeRows, IsAlwaysAligned) {
  tf::Tensor from(tf::DT_FLOAT, {8, 3});
  from.flat<float>().setConstant(1);
  for (int64_t row = 0; row < 8; ++row) {
    for (int64_t rows = 1; row + rows <= 8; ++rows) EXPECT_TRUE(TakeRows(from, row, rows).IsAligned());
  }
}

TEST(CutDimension, KeepsTheBeginningOfEveryRow) {
  const tf::Tensor cut = CutDimension(Floats({1, 2, 3, 4, 5, 6}, {2, 3}), 1, 2);
  EXPECT_EQ(Values(cut), (std::vector<float>{1, 2, 4, 5}));
  EXPECT_EQ(CutDimension(cut, 1, 0).shape(), tf::TensorShape({2, 0}));
}

TEST(RowSlabs, HandsOutRowsUntilFullAndThenAnother) {
  RowSlabs slabs;
  const std::vector<tf::DataType> types = {tf::DT_FLOAT};
  const std::vector<tf::TensorShape> shapes = {tf::TensorShape({2})};
  const SlabRows first = slabs.Reserve(3, 4, types, shapes);
  const SlabRows second = slabs.Reserve(2, 4, types, shapes);
  ASSERT_NE(first.slab, nullptr);
  EXPECT_EQ(first.first_row, 0);
  EXPECT_NE(second.slab, first.slab);
  EXPECT_EQ(slabs.Reserve(2, 4, types, shapes).first_row, 2);
}

TEST(RowSlabs, AClosedSlabGetsNoMoreRows) {
  RowSlabs slabs;
  const std::vector<tf::DataType> types = {tf::DT_FLOAT};
  const std::vector<tf::TensorShape> shapes = {tf::TensorShape({2})};
  const SlabRows first = slabs.Reserve(1, 4, types, shapes);
  EXPECT_EQ(first.slab->Close(), 1);
  EXPECT_NE(slabs.Reserve(1, 4, types, shapes).slab, first.slab);
}

TEST(RowSlabs, HasNoneForStringsAndForWhatIsTooLarge) {
  RowSlabs slabs;
  const std::vector<tf::DataType> strings = {tf::DT_STRING}, floats = {tf::DT_FLOAT};
  const std::vector<tf::TensorShape> row = {tf::TensorShape({})}, large = {tf::TensorShape({1 << 20})};
  EXPECT_EQ(slabs.Reserve(1, 4, strings, row).slab, nullptr);
  EXPECT_EQ(slabs.Reserve(1, 64, floats, large).slab, nullptr);
}

}  // namespace
}  // namespace tessera
