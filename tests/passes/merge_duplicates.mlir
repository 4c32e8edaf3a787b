// RUN: merge-duplicates
// Equal work is done once, through a chain, and bears the names of all; constants of equal bytes are one.
// CHECK:      "hbir.constant"
// CHECK-NEXT: %[[T:.*]] = "hbir.transpose"(%arg0) <{permutation = array<i64: 1, 0>}>
// CHECK-SAME: loc(fused["a", "b"])
// CHECK-NEXT: %[[S:.*]] = "hbir.add"(%[[T]], %{{.*}}) : {{.*}} loc(fused["left", "right"])
// CHECK-NEXT: "hbir.mul"(%[[S]], %[[S]])
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x1xf32>) -> tensor<1x2xf32>}> ({
  ^bb0(%x: tensor<2x1xf32>):
    %c = "hbir.constant"() <{value = BLOB(f32: 1 2)}> : () -> tensor<2xf32> loc("c")
    %t = "hbir.transpose"(%x) <{permutation = array<i64: 1, 0>}> : (tensor<2x1xf32>) -> tensor<1x2xf32> loc("a")
    %0 = "hbir.add"(%t, %c) : (tensor<1x2xf32>, tensor<2xf32>) -> tensor<1x2xf32> loc("left")
    %d = "hbir.constant"() <{value = BLOB(f32: 1 2)}> : () -> tensor<2xf32> loc("d")
    %u = "hbir.transpose"(%x) <{permutation = array<i64: 1, 0>}> : (tensor<2x1xf32>) -> tensor<1x2xf32> loc("b")
    %1 = "hbir.add"(%u, %d) : (tensor<1x2xf32>, tensor<2xf32>) -> tensor<1x2xf32> loc("right")
    %dead = "hbir.transpose"(%x) <{permutation = array<i64: 1, 0>}> : (tensor<2x1xf32>) -> tensor<1x2xf32> loc("dead")
    %y = "hbir.mul"(%0, %1) : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x2xf32> loc("y")
    "func.return"(%y) : (tensor<1x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Other attributes (0.0 is not -0.0), other types, another order of operands, the same bytes as another type: all stay.
// CHECK-COUNT-2: "hbir.constant"
// CHECK-COUNT-2: "hbir.clip"
// CHECK-COUNT-2: "hbir.sub"
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1xf32>)
    -> (tensor<1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xi32>)}> ({
  ^bb0(%x: tensor<1xf32>):
    %c = "hbir.constant"() <{value = BLOB(f32: 0)}> : () -> tensor<1xf32>
    %i = "hbir.constant"() <{value = BLOB(i32: 0)}> : () -> tensor<1xi32>
    %0 = "hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<1xf32>) -> tensor<1xf32>
    %1 = "hbir.clip"(%x) <{min = -0.0 : f64}> : (tensor<1xf32>) -> tensor<1xf32>
    %2 = "hbir.sub"(%0, %c) : (tensor<1xf32>, tensor<1xf32>) -> tensor<1xf32>
    %3 = "hbir.sub"(%c, %0) : (tensor<1xf32>, tensor<1xf32>) -> tensor<1xf32>
    "func.return"(%1, %2, %3, %i) : (tensor<1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xi32>) -> ()
  }) : () -> ()
}) : () -> ()
