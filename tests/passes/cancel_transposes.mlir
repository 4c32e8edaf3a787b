// RUN: cancel-transposes
// A channels-first network in a channels-last dialect: the pair cancels, constants and axes follow.
// CHECK-NOT:  hbir.transpose
// CHECK:      "hbir.mul"(%arg0, %{{.*}}) : (tensor<1x4x5x2xf32>, tensor<1x1x1x2xf32>)
// CHECK-NEXT: "hbir.softmax"(%{{.*}}) <{axis = 3 : i64}>
// CHECK-NEXT: "hbir.reduce"(%{{.*}}) <{axes = array<i64: 1, 2>, keep = true, kind = "mean"}>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x4x5x2xf32>) -> tensor<1x1x1x2xf32>}> ({
  ^bb0(%x: tensor<1x4x5x2xf32>):
    %c = "hbir.constant"() <{value = BLOB(f32: 1 2)}> : () -> tensor<2x1x1xf32>
    %t = "hbir.transpose"(%x) <{permutation = array<i64: 0, 3, 1, 2>}> : (tensor<1x4x5x2xf32>) -> tensor<1x2x4x5xf32>
    %0 = "hbir.mul"(%t, %c) : (tensor<1x2x4x5xf32>, tensor<2x1x1xf32>) -> tensor<1x2x4x5xf32>
    %1 = "hbir.softmax"(%0) <{axis = 1 : i64}> : (tensor<1x2x4x5xf32>) -> tensor<1x2x4x5xf32>
    %2 = "hbir.reduce"(%1) <{kind = "mean", axes = array<i64: 2, 3>, keep = true}> : (tensor<1x2x4x5xf32>) -> tensor<1x2x1x1xf32>
    %3 = "hbir.transpose"(%2) <{permutation = array<i64: 0, 2, 3, 1>}> : (tensor<1x2x1x1xf32>) -> tensor<1x1x1x2xf32>
    "func.return"(%3) : (tensor<1x1x1x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Only an axis of one element moves: a reshape says it.
// CHECK:      "hbir.reshape"(%arg0) <{shape = array<i64: 1, 1, 4, 5>}>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x4x5x1xf32>) -> tensor<1x1x4x5xf32>}> ({
  ^bb0(%x: tensor<1x4x5x1xf32>):
    %t = "hbir.transpose"(%x) <{permutation = array<i64: 0, 3, 1, 2>}> : (tensor<1x4x5x1xf32>) -> tensor<1x1x4x5xf32>
    "func.return"(%t) : (tensor<1x1x4x5xf32>) -> ()
  }) : () -> ()
}) : () -> ()
