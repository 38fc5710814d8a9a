#include "cpp_ext/graph/merged_signatures.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace tessera {
namespace {

Signature Make(const std::string& name, const std::string& input,
               const std::vector<std::pair<std::string, std::string>>& outputs) {
  tensorflow::SignatureDef def;
  (*def.mutable_inputs())["inputs"].set_name(input);
  for (const auto& [alias, tensor] : outputs) (*def.mutable_outputs())[alias].set_name(tensor);
  return *Signature::Make(name, def);
}

TEST(MergedSignaturesTest, SignaturesWithTheSameTensorsAreOneHead) {
  const std::vector<Signature> all = {
      Make("default", "x:0", {{"classes", "c:0"}, {"scores", "s:0"}}),
      Make("classify", "x:0", {{"classes", "c:0"}, {"scores", "s:0"}}),
      Make("swapped", "x:0", {{"classes", "s:0"}, {"scores", "c:0"}}),
      Make("regress", "x:0", {{"outputs", "r:0"}}),
      Make("predict", "x:0", {{"anything", "r:0"}}),
  };
  std::vector<const Signature*> signatures;
  for (const Signature& signature : all) signatures.push_back(&signature);
  const Heads heads = FindHeads(signatures);
  EXPECT_EQ(heads.heads.size(), 3u);
  EXPECT_EQ(heads.of_signature.at("default"), heads.of_signature.at("classify"));
  EXPECT_NE(heads.of_signature.at("default"), heads.of_signature.at("swapped"));
  EXPECT_EQ(heads.of_signature.count("predict"), 0u);
}

TEST(MergedSignaturesTest, TensorsAreTheirOwnAliases) {
  const Signature a = Make("a", "x:0", {{"scores", "s:0"}});
  const Signature b = Make("b", "y:0", {{"outputs", "s:0"}});
  const Signature c = Make("c", "x:0", {{"outputs", "r:0"}});
  const tensorflow::SignatureDef merged = MergeHeads({&a, &b, &c}, 0b101);
  EXPECT_EQ(merged.inputs().size(), 1u);
  EXPECT_EQ(merged.inputs().at("x:0").name(), "x:0");
  EXPECT_EQ(merged.outputs().size(), 2u);
  EXPECT_EQ(merged.outputs().at("r:0").name(), "r:0");
  EXPECT_EQ(MergeHeads({&a, &b, &c}, 0b111).inputs().size(), 2u);
}

TEST(MergedSignaturesTest, FewHeadsAreMergedInEveryWayAndManyAsAWhole) {
  EXPECT_TRUE(SetsToMergeAtLoad(0).empty());
  EXPECT_TRUE(SetsToMergeAtLoad(1).empty());
  EXPECT_EQ(SetsToMergeAtLoad(2), std::vector<HeadSet>{0b11});
  EXPECT_EQ(SetsToMergeAtLoad(3), (std::vector<HeadSet>{0b011, 0b101, 0b110, 0b111}));
  EXPECT_EQ(SetsToMergeAtLoad(4).size(), 11u);
  EXPECT_EQ(SetsToMergeAtLoad(5), std::vector<HeadSet>{0b11111});
  EXPECT_EQ(SetsToMergeAtLoad(30), std::vector<HeadSet>{(1u << 30) - 1});
}

TEST(MergedSignaturesTest, HeadsAreBounded) {
  std::vector<Signature> all;
  for (int i = 0; i < 40; ++i)
    all.push_back(Make("s" + std::to_string(i), "x:0", {{"outputs", std::to_string(i) + ":0"}}));
  std::vector<const Signature*> signatures;
  for (const Signature& signature : all) signatures.push_back(&signature);
  const Heads heads = FindHeads(signatures);
  EXPECT_EQ(heads.heads.size(), 30u);
  EXPECT_EQ(heads.of_signature.size(), 30u);
}

}  // namespace
}  // namespace tessera
