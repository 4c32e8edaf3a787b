// RUN: dead-code
// CHECK:     ^bb0
// CHECK-NEXT: %0 = "hbir.clip"(%arg0) <{min = 0.000000e+00 : f64}>
// CHECK-NEXT: "func.return"(%0)
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2xf32>) -> tensor<2xf32>}> ({
  ^bb0(%x: tensor<2xf32>):
    %c = "hbir.constant"() <{value = BLOB(f32: 1 2)}> : () -> tensor<2xf32>
    %0 = "hbir.add"(%x, %c) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    %1 = "hbir.clip"(%0) <{min = 1.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
    %2 = "hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
    "func.return"(%2) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
